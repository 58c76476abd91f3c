"""Images that nobody gave a network: made from its running statistics and classes, and judged by another network."""
