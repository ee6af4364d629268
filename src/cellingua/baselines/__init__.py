"""What every method is compared with: plain classifiers on counts. Arrays in, arrays out."""
