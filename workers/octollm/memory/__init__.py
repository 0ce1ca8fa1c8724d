"""Memory: documents, artifacts and graph in Postgres, vectors behind one interface, embeddings. Knows no bus."""
