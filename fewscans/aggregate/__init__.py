"""From predictions to scores, contrasts and the ablation table. Reads predictions and embeddings, never a model."""
