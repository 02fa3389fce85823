"""The deployment's own bucket, from which CloudFormation takes code, definitions and the template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import ClientError

from deploy.account import Identity
from deploy.errors import AccountError


class PackageBucket:
    """Takes a client for S3. Every call names the owner: a bucket of that name in another account is not ours.

    Without versions: a key is the hash of its content, so nothing is ever written over.
    """

    def __init__(self, s3: Any, stage: str, identity: Identity) -> None:
        self._s3 = s3
        self._identity = identity
        self._stage = stage
        # The longest: stage 20, account 12, region 14: 61 of 63.
        self.name = f"nod-{stage}-packages-{identity.account}-{identity.region}"
        self._bucket = {"Bucket": self.name, "ExpectedBucketOwner": identity.account}

    def exists(self) -> bool:
        """Raises AccountError if the name is taken by somebody else."""
        try:
            self._s3.head_bucket(**self._bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("404", "NoSuchBucket"):
                return False
            if code == "403":
                raise AccountError(
                    f"The bucket {self.name} may not be used: another account has it, or you have no right to it."
                ) from error
            raise
        return True

    def ensure(self) -> None:
        """Make it, and close it: also one that is there, whatever was changed by hand."""
        if not self.exists():
            where = {} if self._identity.region == "us-east-1" else {"LocationConstraint": self._identity.region}
            self._s3.create_bucket(Bucket=self.name, **({"CreateBucketConfiguration": where} if where else {}))
        self._s3.put_public_access_block(
            **self._bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        self._s3.put_bucket_ownership_controls(
            **self._bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        )
        self._s3.put_bucket_encryption(
            **self._bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )
        self._s3.put_bucket_policy(**self._bucket, Policy=json.dumps(self._policy()))
        self._s3.put_bucket_lifecycle_configuration(
            **self._bucket,
            # No object expires by age: CloudFormation goes back to the last deployment's. `keep` removes the others.
            LifecycleConfiguration={
                "Rules": [
                    {
                        "ID": "broken-uploads",
                        "Status": "Enabled",
                        "Filter": {"Prefix": ""},
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                    }
                ]
            },
        )
        self._s3.put_bucket_tagging(
            **self._bucket, Tagging={"TagSet": [{"Key": "nod:deployment", "Value": self._stage}]}
        )

    def _policy(self) -> dict[str, Any]:
        arn = f"arn:{self._identity.partition}:s3:::{self.name}"
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [arn, f"{arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }

    def upload(self, content: bytes, suffix: str) -> str:
        """Its key: the SHA-256 of the content. What is there is not sent again."""
        key = f"{hashlib.sha256(content).hexdigest()}{suffix}"
        try:
            self._s3.head_object(**self._bucket, Key=key)
        except ClientError as error:
            # 403 is what S3 says of a missing key to who may not list: then writing it will tell.
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "403"):
                raise
            self._s3.put_object(**self._bucket, Key=key, Body=content)
        return key

    def keep(self, keys: Iterable[str]) -> int:
        """Remove every object but these; how many."""
        kept, removed = set(keys), 0
        for page in self._s3.get_paginator("list_objects_v2").paginate(**self._bucket):
            others = [{"Key": one["Key"]} for one in page.get("Contents", []) if one["Key"] not in kept]
            if others:
                answer = self._s3.delete_objects(**self._bucket, Delete={"Objects": others, "Quiet": True})
                removed += len(others) - len(answer.get("Errors", []))
        return removed

    def remove(self) -> bool:
        """Remove it with all that is in it; whether it was there."""
        if not self.exists():
            return False
        # Versions too, should somebody have switched them on.
        for page in self._s3.get_paginator("list_object_versions").paginate(**self._bucket):
            listed = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in listed]
            if objects:
                self._s3.delete_objects(**self._bucket, Delete={"Objects": objects, "Quiet": True})
        self._s3.delete_bucket(**self._bucket)
        return True
