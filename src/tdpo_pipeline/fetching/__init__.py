"""Downloads: published files, resumed where they stopped and held to their checksums."""
