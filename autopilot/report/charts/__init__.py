"""Charts as SVG: drawn twice, for a wide page and for a phone, in the colours of the page's style sheet."""
