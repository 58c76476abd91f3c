"""The same page in every form: HTML, text, JSON, SARIF."""
