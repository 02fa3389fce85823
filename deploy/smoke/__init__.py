"""`make smoke`: what only an AWS account can show, seen on the reader's own account after `make deploy`."""
