"""The local Redshift: Redshift's wire protocol and SQL in front of an embedded PostgreSQL."""
