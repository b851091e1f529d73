"""The report: one self-contained HTML file from the ledger and its attachments. No host is asked, nothing fetched."""
