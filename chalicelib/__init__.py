"""Rules in plain Python, `actions` that apply them, and `aws` gateways. See DESIGN in docs/."""

VERSION = "0.1.0"
