"""The live page of one row: `board` holds what it shows, `server` serves it. The page itself lies in `static`."""
