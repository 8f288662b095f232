"""polcad: keeps rows of GPU servers under their power budget (see README.md)."""
