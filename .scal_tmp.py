import torch,sys
dev=sys.argv[1] if len(sys.argv)>1 else 'cpu'
for name,mk in {'sgd':lambda p:torch.optim.SGD(p,0.1,momentum=0.9),'sgd fused':lambda p:torch.optim.SGD(p,0.1,momentum=0.9,fused=True),'adam fused':lambda p:torch.optim.Adam(p,0.1,fused=True)}.items():
    p=torch.nn.Parameter(torch.ones(40,device=dev)); o=mk([p]); sc=torch.amp.GradScaler(dev,init_scale=8.)
    for k in range(3):
        o.zero_grad(); l=(p*p).sum()*(float('inf') if k==1 else 1)
        sc.scale(l).backward(); 
        if len(sys.argv)>2: sc.unscale_(o)
        sc.step(o); sc.update()
        print(name,k,p[0].item(), {a:(b.flatten()[0].item() if hasattr(b,'flatten') else b) for a,b in o.state[p].items()})
