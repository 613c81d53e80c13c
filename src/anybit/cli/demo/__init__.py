"""`anybit demo`: one model at many precisions, measured side by side."""
