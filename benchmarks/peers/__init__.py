"""The same star by what a user would take instead of this project, each in one run, side by side."""
