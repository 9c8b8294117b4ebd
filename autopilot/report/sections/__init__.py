"""The sections of the page: each takes the report's content and gives its markup, or None where it has nothing to say."""
