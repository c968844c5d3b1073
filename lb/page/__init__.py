"""The page: what `show`, `status` and `explain` say, drawn in a browser on this node."""
