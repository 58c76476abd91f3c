"""What is written: a page as HTML and text, a document as JSON and tables, checked files as text, JSON and SARIF."""
