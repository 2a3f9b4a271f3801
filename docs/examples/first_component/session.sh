mer-zoo check fusion/./peak.py:Peak

mer-zoo compare suite.yaml -o training.epochs=10

# fails
mer-zoo train mine.yaml -o model.join.fusion.out_widht=96
