"""What runs on the EC2 instance: SSM documents, their scripts, units and programs."""
