"""From a corpus to weights: dataset, augmentation, model, contrastive training, codebooks. Needs torch."""
