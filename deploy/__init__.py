"""For who deploys: packages the app, brings it into an AWS account by CloudFormation, takes it away again."""
