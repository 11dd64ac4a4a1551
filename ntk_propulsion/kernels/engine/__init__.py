"""The engine, private: from a forward pass to Jacobian blocks to Gram matrices."""
