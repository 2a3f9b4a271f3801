mer-zoo train bilstm -o training.epochs=8
cp runs/*.safetensors model.safetensors

python new_dialogue.py
mer-zoo import npz new.npz --output new
mer-zoo predict model.safetensors --data new | cut -c 1-200

python in_python.py
