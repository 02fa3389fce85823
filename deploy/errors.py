"""What a deployment can fail with. One sentence each, which says what to do.

DeployError
├── InputError       what was asked for cannot be deployed
├── AccountError     the AWS account, its credentials or its network do not allow it
├── PackageError     the package could not be made
├── StackError       CloudFormation did not do what was asked
├── LeftError        notebooks exist, or something is left that bills
└── SmokeError       something that `make smoke` looked at was not as it has to be
"""


class DeployError(Exception):
    """Any failure of a deployment; its text is meant for the person who started it."""


class InputError(DeployError):
    """What was asked for cannot be deployed. Said before AWS is called."""


class AccountError(DeployError):
    """The AWS account, its credentials or its network do not allow it. Said before anything is created."""


class PackageError(DeployError):
    """The package could not be made, or would be refused by CloudFormation."""


class StackError(DeployError):
    """CloudFormation did not do what was asked."""


class LeftError(DeployError):
    """Notebooks exist, so nothing is taken away; or something is left that bills."""


class SmokeError(DeployError):
    """Something that `make smoke` looked at was not as it has to be."""
