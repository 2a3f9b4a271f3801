mer-zoo check fusion/./peak.py:Peak

mer-zoo compare suite.yaml -o training.epochs=10

# fails
mer-zoo train with_peak.yaml -o model.join.fusion.out_widht=96

mer-zoo new fusion blend
mer-zoo check fusion/./blend.py:Blend | tail -1
