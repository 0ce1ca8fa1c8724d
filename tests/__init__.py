"""The tests. CONTRIBUTING.md maps the folders. Code that several test modules share is in `helpers`."""
