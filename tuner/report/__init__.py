"""What people look at after a search: pictures, and the result as one page."""
