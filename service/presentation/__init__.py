"""How values are written for people: numbers, times and chances in words, and the templates of pages."""
