"""Memory: documents, artifacts and the graph in Postgres, embeddings, vector stores.

Does not import the protocol.
"""
