"""The dashboard's widgets; each draws plain lines of text and redraws only what changed."""
