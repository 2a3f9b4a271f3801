mer-zoo check tracker/./book.py:Book
mer-zoo train majority --track '{name: ./book.py:Book, digits: 4}' > table.txt
cat runs/book.txt
