"""For who runs a deployment: users, tokens, Slack channels. Runs on their machine, with their AWS credentials."""
