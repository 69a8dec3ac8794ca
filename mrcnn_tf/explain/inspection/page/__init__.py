"""The parts of the report's page, which are joined into one file when it is written."""
