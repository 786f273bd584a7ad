"""Whatever holds sounds: folders, archives, tables, manifests, remote stores, read as streams of members."""
