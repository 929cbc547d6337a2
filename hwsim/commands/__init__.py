"""What the commands do that have no room of their own: arguments, calls, what is printed and written."""
