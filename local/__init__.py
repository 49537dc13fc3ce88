"""What stands in for AWS on a laptop: an S3 server, the local Redshift, and sample data."""
