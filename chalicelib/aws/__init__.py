"""Gateways: one module per AWS service or outside party, its client handed in. They translate, and decide nothing."""
