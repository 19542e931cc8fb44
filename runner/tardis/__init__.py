"""The source: day files and catalogues of Tardis (https://docs.tardis.dev), and nothing of ours."""
