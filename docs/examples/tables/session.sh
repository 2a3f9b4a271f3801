python make_table.py
mer-zoo import csv mine.csv

# fails
mer-zoo import npz mine.csv --output other

python in_python.py
