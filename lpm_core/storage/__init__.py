"""What `lpm_core.store` stands on: the database, its tables, and the values in their columns."""
