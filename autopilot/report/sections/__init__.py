"""The sections of the page: each makes markup of the report's content, or None where it has nothing to say."""
