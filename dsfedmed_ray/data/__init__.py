"""Where images come from: federations of sites, and their division into parts."""
