"""ADK databases of the schema version 0, migrated in place to version 1, and back."""
