"""The seven claims of the article, one file each: what is measured, and the section of the page that tells it.

`verdicts` turns numbers into words by rules that could come out the other way; `networks` trains the small
networks that several claims share; `hands` reads tensors without bnprobe, to check what bnprobe says;
`pictures` draws.
"""
