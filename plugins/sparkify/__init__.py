"""Operators and helpers that load JSON from S3 into a star schema on Amazon Redshift."""
