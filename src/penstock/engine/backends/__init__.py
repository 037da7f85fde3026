"""Real models behind `penstock engine --backend`: a server of somebody else's, wrapped so that it drains."""
