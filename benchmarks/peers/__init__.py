"""What a user would pick instead, measured in the same way. The only modules that import other detection libraries."""
