"""What every long piece of work needs: a folder, whole files, fingerprints, progress."""
