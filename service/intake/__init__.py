"""What enters a library: files, their metadata, and what is known of recordings changed later."""
