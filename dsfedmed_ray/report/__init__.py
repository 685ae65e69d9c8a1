"""What a finished run looks like: the closing table and the report page."""
