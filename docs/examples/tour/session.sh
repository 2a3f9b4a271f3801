mer-zoo list recipe

mer-zoo list layer "*gat*"

mer-zoo describe layer/differential_gat

mer-zoo train bilstm -o training.epochs=6

mer-zoo compare --models "AMB-DSGDN;BiLSTM" --seeds 2 -o training.epochs=8

python six_lines.py

# fails
mer-zoo train amb_dsgdm
