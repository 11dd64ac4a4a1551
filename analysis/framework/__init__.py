"""What a study is: settings, resumable cells, rules, verdicts, the table of claims."""
